"""What is measured: each scenario drives any adapter and says how much it got done."""

from . import small, streams
from .scenario import Effort, Scenario

__all__ = ["SCENARIOS", "Effort", "Scenario"]

SCENARIOS = {
    scenario.name: scenario
    for scenario in (small.AT_ONCE, small.ONE_AT_A_TIME, small.AT_ONCE_HTTP2, streams.DOWNLOAD, streams.UPLOAD)
}

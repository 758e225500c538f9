"""Metrics and the engine's record of them."""

from __future__ import annotations

import dataclasses
import struct

import pytest

from katipo.metrics import METRICS_FORMAT, Metrics


def test_a_record_becomes_metrics() -> None:
    """Times from microseconds to seconds, counts as they are, the address without its padding."""
    record = struct.pack(METRICS_FORMAT, 1, 2_000_000, 3, 4, 5, 6, 7, 8_500_000, 9, 10, 11, 443, 50000, b"2001:db8::1")
    assert Metrics.unpack(record) == Metrics(
        queue_time=0.000001,
        namelookup_time=2.0,
        connect_time=0.000003,
        appconnect_time=0.000004,
        pretransfer_time=0.000005,
        starttransfer_time=0.000006,
        redirect_time=0.000007,
        total_time=8.5,
        bytes_sent=9,
        bytes_received=10,
        connections_opened=11,
        primary_ip="2001:db8::1",
        primary_port=443,
        local_port=50000,
    )


def test_a_record_of_another_size_is_refused() -> None:
    """A format that has drifted apart does not give wrong numbers."""
    with pytest.raises(struct.error):
        Metrics.unpack(bytes(struct.calcsize(METRICS_FORMAT) - 1))


def test_the_format_is_the_engines() -> None:
    """Both sides state it; nothing else keeps them equal."""
    engine = pytest.importorskip("katipo._engine")
    assert engine.METRICS_FORMAT == METRICS_FORMAT


def test_metrics_are_frozen_and_zero_by_default() -> None:
    """A response made by hand has metrics too."""
    assert Metrics() == Metrics.unpack(bytes(struct.calcsize(METRICS_FORMAT)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Metrics().total_time = 1.0  # type: ignore[misc]

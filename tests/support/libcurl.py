"""The system's own libcurl, which has what the one of pycurl's wheels lacks: NTLM, above all."""

import re
import shutil
import subprocess

from tests.support.processes import missing

_LDCONFIG = shutil.which("ldconfig", path="/sbin:/usr/sbin:/usr/local/sbin")


def system_libcurl() -> str:
    """The path of the libcurl that the dynamic linker knows, the one on OpenSSL first; without one the test that asks is
    skipped, or fails where servers are required."""
    known = subprocess.check_output([_LDCONFIG, "-p"], text=True) if _LDCONFIG else ""
    for name in ("libcurl.so.4", "libcurl-gnutls.so.4"):
        if match := re.search(rf"^\s*{re.escape(name)} .* => (\S+)$", known, re.MULTILINE):
            return match[1]
    raise missing("libcurl.so.4")

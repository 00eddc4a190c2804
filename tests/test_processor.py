"""Name and vendor of the processor, from what the system says."""

from __future__ import annotations

import platform

import pytest

from gimp_fast import processor

X86 = """processor	: 0
vendor_id	: GenuineIntel
model		: 85
model name	: Intel(R) Xeon(R) CPU @ 2.50GHz

processor	: 1
vendor_id	: GenuineIntel
"""
ARM = "processor	: 0\nBogoMIPS	: 243.75\nCPU implementer	: 0x41\n"
WINDOWS = "AMD64 Family 25 Model 33 Stepping 0, AuthenticAMD"


@pytest.mark.parametrize(
    ("cpuinfo", "system", "name", "vendor"),
    [
        (X86, "", "Intel(R) Xeon(R) CPU @ 2.50GHz", "GenuineIntel"),
        (ARM, "aarch64", "aarch64", ""),
        ("", "", "some-machine", ""),
        (None, WINDOWS, WINDOWS, "AuthenticAMD"),
        (None, "arm", "arm", ""),
    ],
    ids=["linux", "linux-arm", "linux-empty", "windows", "mac"],
)
def test_name_and_vendor(tmp_path, monkeypatch, cpuinfo, system, name, vendor):
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo, encoding="utf-8")
    monkeypatch.setattr(processor, "CPUINFO", path)
    monkeypatch.setattr(platform, "processor", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: "some-machine")
    assert (processor.name(), processor.vendor()) == (name, vendor)

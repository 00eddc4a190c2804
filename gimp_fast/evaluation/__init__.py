"""Every rate, area, calibration measure, interval and paired test, each defined once."""

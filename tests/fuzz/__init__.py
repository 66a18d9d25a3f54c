"""What `make fuzz` runs; not collected by pytest, but for the smoke run in tests/unit/test_fuzz.py."""

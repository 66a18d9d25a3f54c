"""Settings of hypothesis for all unit tests."""

from hypothesis import settings

settings.register_profile("unit", deadline=None, max_examples=60)  # a busy machine is no defect
settings.load_profile("unit")

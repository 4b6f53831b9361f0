"""What holds for all tests."""

from hypothesis import settings

# Tests say what is right, never how long it takes: on a busy machine any example may be slow.
settings.register_profile("artesian", deadline=None)
settings.load_profile("artesian")

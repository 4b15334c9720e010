"""How many examples Hypothesis tries: few in the default suite, so that it is run often; all of them in CI."""

from hypothesis import settings

settings.register_profile("quick", max_examples=30)
settings.register_profile("thorough", max_examples=100)
settings.load_profile("quick")

"""How many examples Hypothesis tries: few in the default suite, so that it is run often; all of them in CI."""

from hypothesis import settings

# no deadline: the machines that run this are shared, and a slow example is no bug
settings.register_profile("quick", max_examples=30, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile("quick")

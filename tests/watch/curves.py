"""A learning curve for tests: two points, five thieves."""

from palladion.watch.learning_curve import Fit, LearningCurve

FIT = Fit(5, 0.95, 0.1, 0.98, 0.97)
CURVE = LearningCurve(
    "ab" * 32, 0.25, (10, 30), (0.4, 0.5), (0.45, 0.6), (0.5, 0.8), (1, 2, 3, 4, 5), (25, 50), 300, FIT, {"mixed": FIT}
)

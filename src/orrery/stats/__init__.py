"""The statistics by which orrery decides: evidence valid at any look, intervals, sketches, losses. No I/O."""

from orrery.stats.calibrate import apply_platt, platt
from orrery.stats.detector import CalibrationDrift, MeanDetector
from orrery.stats.drift import FeatureDrift, Look
from orrery.stats.eprocess import BettingE, McNemarE, log_mean_e
from orrery.stats.intervals import Interval, paired_interval, wilson
from orrery.stats.losses import absolute_error, brier, log_loss, squared_error, zero_one
from orrery.stats.online import level
from orrery.stats.paired import PairedTest
from orrery.stats.randomised import randomised_differences
from orrery.stats.sketch import CategorySketch, NumericSketch
from orrery.stats.table import TableSketch

__all__ = [
    "BettingE",
    "CalibrationDrift",
    "CategorySketch",
    "FeatureDrift",
    "Interval",
    "Look",
    "McNemarE",
    "MeanDetector",
    "NumericSketch",
    "PairedTest",
    "TableSketch",
    "absolute_error",
    "apply_platt",
    "brier",
    "level",
    "log_loss",
    "log_mean_e",
    "paired_interval",
    "platt",
    "randomised_differences",
    "squared_error",
    "wilson",
    "zero_one",
]

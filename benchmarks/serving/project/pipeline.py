"""The models that are served: twelve mixed features, scaled and one-hot encoded, and one of five learners.

The fitted object is what the peers load from a pickle, and what is converted to ONNX for those that serve that.
"""

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

NUMBERS = ["age", "income", "balance", "visits", "tenure", "distance", "rating", "discount"]
WORDS = ["region", "device", "channel", "plan"]


class WithRule:
    """Boosting, and a rule that somebody wrote by hand: plain Python, which no converter knows."""

    def __init__(self, boosting):
        self.boosting = boosting

    def predict_proba(self, features):
        positive = self.boosting.predict_proba(features)[:, 1]
        visits, plan = np.asarray(features["visits"]), np.asarray(features["plan"])
        positive = np.where((visits > 9) & (plan == "gold"), np.maximum(positive, 0.8), positive)
        return np.column_stack([1 - positive, positive])


def features(clients):
    """The twelve columns, as they come."""
    return clients.select(*NUMBERS, *WORDS)


def model(features, bought, *, kind: str = "boosting", rounds: int = 100, seed: int = 0):
    """Return the fitted pipeline of one kind."""
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    prepared = ColumnTransformer([("numbers", StandardScaler(), NUMBERS), ("words", words, WORDS)])
    fitted = make_pipeline(prepared, _learner(kind, rounds, seed)).fit(features, bought)
    return WithRule(fitted) if kind == "callable" else fitted


def _learner(kind, rounds, seed):
    """The learner of a kind; the small neural network is scikit-learn's."""
    if kind == "logistic":
        return LogisticRegression(max_iter=1000)
    if kind == "network":
        return MLPClassifier((64, 32), max_iter=rounds // 10, tol=0.0, n_iter_no_change=1000, random_state=seed)
    if kind == "xgboost":
        from xgboost import XGBClassifier

        return XGBClassifier(n_estimators=rounds, max_depth=6, n_jobs=1, random_state=seed)
    return HistGradientBoostingClassifier(max_iter=rounds, early_stopping=False, random_state=seed)

"""Kinds of pipelines, each with what must come of compiling it; docs/compile.md has a line for each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

IMPORTS = """
import numpy as np
import polars as pl
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import *
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import *
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.preprocessing import *
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

FUNCTIONS = [np.abs, np.cos, np.sin, np.square, np.tanh, np.sign]
CAT = dict(iterations=20, verbose=0, allow_writing_files=False)
LIGHT = dict(n_estimators=20, verbose=-1)
"""
ROWS = """
def model(rows, y):
    fill = make_pipeline(SimpleImputer(), StandardScaler())
    hot = OneHotEncoder(handle_unknown="ignore")
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    number, text = ["a", "b", "n"], ["city"]
    return {fit}.fit(rows, y)
"""
"""Numbers and texts as they come, nulls included."""
ONE_HOT = ROWS.replace("{fit}", "make_pipeline(make_column_transformer((fill, number), (hot, text)), {fit})")
ORDINAL = ROWS.replace("{fit}", "make_pipeline(make_column_transformer((codes, text), ('passthrough', number)), {fit})")
COLUMNS = ROWS.replace("{fit}", "make_pipeline(make_column_transformer({fit}), LogisticRegression())")
NUMBERS = """
def features(rows):
    return rows.select("b", "n", a=pl.col("a").fill_null(0.0))

def model(features, y):
    return {fit}.fit(features, y)
"""
"""A frame of numbers without nulls."""
SCALED = NUMBERS.replace("{fit}", "make_pipeline(StandardScaler(), {fit})")
PANDAS = NUMBERS.replace(".fill_null(0.0))", ".fill_null(0.0)).to_pandas()")
MATRIX = """
def features(rows):
    return rows.select("b", "n", "a").to_numpy()

def model(features, y):
    return {fit}.fit(features, y)
"""
"""A matrix of numbers with nulls."""
LAMBDA = """
def features(rows):
    return rows.select("b")

def model(features, y):
    middle = float(features["b"].mean())
    return lambda given: (given["b"].to_numpy() > middle).astype(float)
"""
OWN_CLASS = """
class Middle(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_, self.middle_ = np.unique(y), float(X["b"].mean())
        return self

    def predict_proba(self, X):
        high = (X["b"].to_numpy() > self.middle_).astype(float)
        return np.column_stack([1 - high, high])

def features(rows):
    return rows.select("b")

def model(features, y):
    return Middle().fit(features, y)
"""
SUBCLASS = """
class Bolder(LogisticRegression):
    def predict_proba(self, X):
        return super().predict_proba(X) ** 2 / (super().predict_proba(X) ** 2).sum(axis=1, keepdims=True)

def features(rows):
    return rows.select("b", "n")

def model(features, y):
    return Bolder().fit(features, y)
"""
BOUND = """
def features(rows):
    return rows.select("b", "n")

def model(features, y):
    return LogisticRegression().fit(features, y).predict_proba
"""
CATEGORIES = """
CITIES = ["x", "yy", "z z"]

def features(rows):
    code = pl.col("city").replace_strict(CITIES, [0.0, 1.0, 2.0], default=None, return_dtype=pl.Float64)
    return rows.select("a", "b", city=code, many=pl.col("n").cast(pl.Float64))

def model(features, y):
    return {fit}(categorical_features=["city", "many"], max_iter=25).fit(features, y)
"""


@dataclass(frozen=True)
class Case:
    """One kind."""

    task: str
    name: str
    form: str
    """The project's module, with a gap ``{fit}``."""
    fit: str = ""
    """What is fitted, in Python."""
    refused: str = ""
    """Words of the reason; empty: it is compiled."""
    needs: str = ""
    """A library besides scikit-learn."""
    slow: bool = False

    @property
    def text(self) -> str:
        """The module."""
        more = f"from {self.needs} import *\n" if self.needs else ""
        return IMPORTS + more + self.form.replace("{fit}", self.fit)


binary, three, number = (partial(Case, task) for task in ("binary", "multiclass", "regression"))
CASES = [
    binary("one-hot, scaler, logistic regression", ONE_HOT, "LogisticRegression()"),
    three("one-hot, scaler, logistic regression, three classes", ONE_HOT, "LogisticRegression()", slow=True),
    number("one-hot, ridge regression", ONE_HOT, "Ridge()"),
    binary("one-hot, gradient boosting", ONE_HOT, "GradientBoostingClassifier(n_estimators=20)"),
    three(
        "one-hot, gradient boosting, three classes", ONE_HOT, "GradientBoostingClassifier(n_estimators=8)", slow=True
    ),
    binary("one-hot, random forest", ONE_HOT, "RandomForestClassifier(10)", slow=True),
    number("one-hot, random forest regression", ONE_HOT, "RandomForestRegressor(10)"),
    three("one-hot, extra trees", ONE_HOT, "ExtraTreesClassifier(10)", slow=True),
    binary("ordinal encoder, histogram boosting", ORDINAL, "HistGradientBoostingClassifier(max_iter=20)", slow=True),
    binary("histogram boosting with categories", CATEGORIES, "HistGradientBoostingClassifier", slow=True),
    three("histogram boosting with categories, three classes", CATEGORIES, "HistGradientBoostingClassifier", slow=True),
    number("histogram boosting with categories, regression", CATEGORIES, "HistGradientBoostingRegressor", slow=True),
    binary("histogram boosting of a matrix with nulls", MATRIX, "HistGradientBoostingClassifier(max_iter=20)"),
    number(
        "histogram boosting, Poisson loss",
        NUMBERS,
        "HistGradientBoostingRegressor(max_iter=20, loss='poisson')",
        slow=True,
    ),
    binary("decision tree", NUMBERS, "DecisionTreeClassifier(max_depth=6)"),
    number("decision tree regression with nulls", MATRIX, "DecisionTreeRegressor(max_depth=8)"),
    binary("random forest of a pandas frame", PANDAS, "RandomForestClassifier(10)", slow=True),
    binary("scaler, then trees", SCALED, "RandomForestClassifier(10)", slow=True),
    binary("AdaBoost", NUMBERS, "AdaBoostClassifier(n_estimators=10)"),
    binary("bagging", NUMBERS, "BaggingClassifier(DecisionTreeClassifier(max_depth=4), 5)", slow=True),
    number("linear regression", NUMBERS, "LinearRegression()"),
    number("lasso", NUMBERS, "Lasso(0.01)", slow=True),
    number("Poisson regression", NUMBERS, "PoissonRegressor()", slow=True),
    binary("stochastic gradient descent", SCALED, "SGDClassifier(loss='log_loss')"),
    binary("linear support vectors (labels only)", SCALED, "LinearSVC()", refused="the converter says", slow=True),
    three("ridge classifier (labels only), three classes", SCALED, "RidgeClassifier()", slow=True),
    binary("nearest neighbours", SCALED, "KNeighborsClassifier(7)", slow=True),
    number("nearest neighbours regression", SCALED, "KNeighborsRegressor(7)", slow=True),
    number("support vector regression", SCALED, "SVR()"),
    three("support vectors", SCALED, "SVC()", slow=True),
    binary("naive Bayes", NUMBERS, "GaussianNB()"),
    binary("Bernoulli naive Bayes", NUMBERS, "BernoulliNB()", slow=True),
    binary("neural network", SCALED, "MLPClassifier((8,), max_iter=400, tol=1e-2)"),
    number(
        "neural network regression", SCALED, "MLPRegressor(hidden_layer_sizes=(8,), max_iter=400, tol=1e-1)", slow=True
    ),
    number("Gaussian process", NUMBERS, "GaussianProcessRegressor(alpha=1.0)", slow=True),
    binary("power transformer", NUMBERS, "make_pipeline(PowerTransformer(), LogisticRegression())", slow=True),
    binary(
        "quantile transformer",
        NUMBERS,
        "make_pipeline(QuantileTransformer(n_quantiles=50), LogisticRegression())",
        slow=True,
    ),
    binary(
        "bins",
        NUMBERS,
        "make_pipeline(KBinsDiscretizer(5, quantile_method='averaged_inverted_cdf'), LogisticRegression())",
    ),
    number("polynomials", NUMBERS, "make_pipeline(PolynomialFeatures(2), Ridge())"),
    number(
        "splines", NUMBERS, "make_pipeline(SplineTransformer(), Ridge())", refused="no converter for SplineTransformer"
    ),
    binary(
        "min-max, robust and max-abs scalers",
        NUMBERS,
        "make_pipeline(make_union(MinMaxScaler(), RobustScaler(), MaxAbsScaler()), LogisticRegression())",
        slow=True,
    ),
    binary(
        "feature union with principal components",
        NUMBERS,
        "make_pipeline(make_union(PCA(2), StandardScaler()), LogisticRegression())",
        slow=True,
    ),
    binary("chosen features", NUMBERS, "make_pipeline(SelectKBest(k=2), LogisticRegression())", slow=True),
    binary("imputer with indicator", COLUMNS, "(SimpleImputer(add_indicator=True), number)"),
    binary(
        "imputed texts",
        COLUMNS,
        "(make_pipeline(SimpleImputer(missing_values=None, strategy='most_frequent'), hot), text), (fill, number)",
        slow=True,
    ),
    binary(
        "imputed texts, where null is a category",
        COLUMNS,
        "(make_pipeline(SimpleImputer(strategy='most_frequent'), hot), text), (fill, number)",
    ),
    binary("imputer of neighbours", MATRIX, "make_pipeline(KNNImputer(), LogisticRegression())", slow=True),
    binary("counts of words", COLUMNS, "(CountVectorizer(), 'text')", refused="it cuts texts into words"),
    binary("weights of words", COLUMNS, "(TfidfVectorizer(), 'text')", refused="it cuts texts into words", slow=True),
    binary("target encoder", COLUMNS, "(TargetEncoder(), text), (fill, number)"),
    binary(
        "voting",
        NUMBERS,
        "VotingClassifier([('l', LogisticRegression()), ('t', DecisionTreeClassifier(max_depth=3))], voting='soft')",
    ),
    binary(
        "stacking",
        NUMBERS,
        "StackingClassifier([('l', LogisticRegression()), ('t', DecisionTreeClassifier(max_depth=3))])",
        slow=True,
    ),
    binary("calibrated", NUMBERS, "CalibratedClassifierCV(GaussianNB(), cv=3)", slow=True),
    binary(
        "calibrated histogram boosting",
        NUMBERS,
        "CalibratedClassifierCV(HistGradientBoostingClassifier(max_iter=10), cv=2)",
        slow=True,
    ),
    number(
        "transformed target",
        NUMBERS,
        "TransformedTargetRegressor(make_pipeline(StandardScaler(), Ridge()), func=np.log1p, inverse_func=np.expm1)",
    ),
    number("scaled target", NUMBERS, "TransformedTargetRegressor(SVR(), transformer=StandardScaler())", slow=True),
    number(
        "target of another function",
        NUMBERS,
        "TransformedTargetRegressor(Ridge(), func=np.arcsinh, inverse_func=np.sinh)",
        refused="the function sinh",
        slow=True,
    ),
    binary(
        "isotonic calibration",
        NUMBERS,
        "CalibratedClassifierCV(GaussianNB(), method='isotonic', cv=3)",
        refused="untouched rows",
        slow=True,
    ),
    binary(
        "functions in a pipeline",
        NUMBERS,
        "make_pipeline(make_union(*map(FunctionTransformer, FUNCTIONS)), StandardScaler(), LogisticRegression())",
    ),
    binary(
        "logarithm and root",
        COLUMNS,
        "(FunctionTransformer(np.log1p), ['b']), (FunctionTransformer(np.sqrt), ['n']), (fill, ['a'])",
        slow=True,
    ),
    binary(
        "a function of the project in a pipeline",
        NUMBERS,
        "make_pipeline(FunctionTransformer(lambda x: x + 1), LogisticRegression())",
        refused="the function <lambda>",
    ),
    binary("a bound method", BOUND, slow=True),
    binary("a function", LAMBDA, refused="only estimators can be converted"),
    binary("a class of the project", OWN_CLASS, refused="no converter for Middle"),
    binary("a subclass in the project", SUBCLASS, refused="no converter for Bolder"),
    binary("XGBoost", MATRIX, "XGBClassifier(n_estimators=20)", needs="xgboost"),
    three("XGBoost, three classes", MATRIX, "XGBClassifier(n_estimators=10)", needs="xgboost", slow=True),
    number("XGBoost regression", MATRIX, "XGBRegressor(n_estimators=20)", needs="xgboost", slow=True),
    binary("one-hot, XGBoost", ONE_HOT, "XGBClassifier(n_estimators=20)", needs="xgboost", slow=True),
    binary("LightGBM", MATRIX, "LGBMClassifier(**LIGHT)", needs="lightgbm"),
    three("LightGBM, three classes", MATRIX, "LGBMClassifier(**LIGHT)", needs="lightgbm", slow=True),
    number("LightGBM regression", MATRIX, "LGBMRegressor(**LIGHT)", needs="lightgbm", slow=True),
    binary("one-hot, LightGBM", ONE_HOT, "LGBMClassifier(**LIGHT)", needs="lightgbm", slow=True),
    binary("CatBoost", MATRIX, "CatBoostClassifier(**CAT)", needs="catboost"),
    three("CatBoost, three classes", MATRIX, "CatBoostClassifier(**CAT)", needs="catboost", slow=True),
    binary("one-hot, CatBoost", ONE_HOT, "CatBoostClassifier(**CAT)", needs="catboost", slow=True),
    number("CatBoost regression", MATRIX, "CatBoostRegressor(**CAT)", needs="catboost"),
]

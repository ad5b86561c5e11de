"""Kinds of models with a PyTorch module in them, and what must come of compiling each: see ``compile_corpus``."""

from __future__ import annotations

from training.compile_corpus import Case

IMPORTS = """
import torch
from torch import nn


def _trained(module, features, y, loss, steps=40):
    \"\"\"The module after some steps of Adam on all rows.\"\"\"
    torch.manual_seed(7)
    x = torch.tensor(np.asarray(features)).to(next(module.parameters()).dtype)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(module(x), y).backward()
        optimizer.step()
    return module


def _network(width, out, *last):
    torch.manual_seed(3)
    hidden = [nn.BatchNorm1d(width), nn.Linear(width, 16), nn.ReLU(), nn.Dropout(0.3)]
    return nn.Sequential(*hidden, nn.Linear(16, out), *last)


def _yes(said, y):
    return nn.functional.binary_cross_entropy(said[:, -1], torch.tensor(np.array(y), dtype=said.dtype))


def _classes(said, y):
    return nn.functional.nll_loss(torch.log(said + 1e-9), torch.tensor(np.array(y), dtype=torch.long))


def _far(said, y):
    return nn.functional.mse_loss(said[:, 0], torch.tensor(np.array(y), dtype=said.dtype))


def _two(module):
    \"\"\"The probabilities of both classes.\"\"\"
    return nn.Sequential(module, Both())


class Both(nn.Module):
    def forward(self, x):
        return torch.cat([1 - x, x], dim=1)


class Net(ClassifierMixin, BaseEstimator):
    \"\"\"An estimator that says which module it asks.\"\"\"

    def __init__(self, out=2):
        self.out = out

    def fit(self, x, y):
        x = np.asarray(x, dtype=np.float32)
        self.classes_ = np.unique(np.array(y))
        last = [nn.Softmax(dim=1)] if self.out > 2 else [nn.Sigmoid(), Both()]
        module = _network(x.shape[1], self.out if self.out > 2 else 1, *last)
        self.torch_module_ = _trained(module, x, y, _classes if self.out > 2 else _yes).eval()
        return self

    def predict_proba(self, x):
        with torch.no_grad():
            return self.torch_module_(torch.tensor(np.asarray(x), dtype=torch.float32)).numpy()
"""
FEATURES = """
def features(rows):
    return rows.select("b", "n", a=pl.col("a").fill_null(0.0))
"""
MODULE = (
    IMPORTS
    + FEATURES
    + """
def model(features, y):
    return _trained({module}, features, y, {loss})
"""
)
OF_REQUESTS = MODULE.replace('rows.select("b", "n", a=pl.col("a").fill_null(0.0))', 'rows.select("b", "n")')
WITH_NULLS = MODULE.replace('a=pl.col("a").fill_null(0.0)', '"a"').replace(
    "class Both(",
    "class Filled(nn.Module):\n    def forward(self, x):\n        return torch.nan_to_num(x)\n\n\nclass Both(",
)
ESTIMATOR = (
    IMPORTS
    + FEATURES
    + """
def model(features, y):
    return {model}.fit(features, y)
"""
)
PIPELINE = (
    IMPORTS
    + """
def model(rows, y):
    fill = make_pipeline(SimpleImputer(), StandardScaler())
    hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = make_column_transformer((fill, ["a", "b", "n"]), (hot, ["city"]))
    return make_pipeline(columns, {model}).fit(rows, y)
"""
)
OTHER = (
    ESTIMATOR.replace("{model}", "Other()")
    + """

class Other(Net):
    def predict_proba(self, x):
        found = super().predict_proba(x) ** 2
        return found / found.sum(axis=1, keepdims=True)
"""
)
SILENT = (
    IMPORTS.replace("torch_module_", "net_") + FEATURES + "def model(features, y):\n    return Net().fit(features, y)\n"
)
FUNCTION = MODULE.replace("return _trained(", "net = _trained(") + (
    "    net.eval()\n    return lambda rows: net(torch.tensor(rows.to_numpy(), dtype=torch.float32))\n"
)
EMBEDDED = (
    MODULE
    + """

class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.rest = nn.Embedding(9, 4), nn.Linear(6, 1)

    def forward(self, x):
        place = x[:, 1].long(){bounds}
        return torch.sigmoid(self.rest(torch.cat([x[:, ::2] / 100, self.words(place)], dim=1)))
"""
)
BRANCH = (
    MODULE
    + """

class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(3, 1)

    def forward(self, x):
        if x.sum() > 0:
            return torch.sigmoid(self.line(x / 100))
        return torch.sigmoid(-self.line(x / 100))
"""
)


def _case(
    name: str, text: str, module: str = "", loss: str = "_yes", task: str = "binary", model: str = "", refused: str = ""
) -> Case:
    text = text.replace("{module}", module).replace("{loss}", loss).replace("{model}", model)
    return Case(task, name, text, refused=refused)


SIGMOID = "_network(3, 1, nn.Sigmoid())"
TORCH = [
    _case("PyTorch module", MODULE, SIGMOID),
    _case("PyTorch module of columns as they come", OF_REQUESTS, "_network(2, 1, nn.Sigmoid())"),
    _case("PyTorch module, two columns", MODULE, f"_two({SIGMOID})"),
    _case("PyTorch module, three classes", MODULE, "_network(3, 3, nn.Softmax(dim=1))", "_classes", "multiclass"),
    _case("PyTorch module, regression", MODULE, "_network(3, 1)", "_far", "regression"),
    _case("PyTorch module in double precision", MODULE, f"{SIGMOID}.double()"),
    _case("PyTorch module that fills nulls", WITH_NULLS, f"nn.Sequential(Filled(), {SIGMOID})"),
    _case("PyTorch module with an embedding within bounds", EMBEDDED.replace("{bounds}", ".clamp(0, 8)"), "Embedded()"),
    _case("PyTorch in an estimator that declares it", ESTIMATOR, model="Net()"),
    _case("one-hot, scaler, PyTorch", PIPELINE, model="Net()"),
    _case("one-hot, scaler, PyTorch, three classes", PIPELINE, task="multiclass", model="Net(3)"),
    _case(
        "PyTorch module with an embedding",
        EMBEDDED.replace("{bounds}", ""),
        "Embedded()",
        refused="is refused by the model itself where n is -1",
    ),
    _case("PyTorch module that branches on its data", BRANCH, "Branch()", refused="PyTorch cannot export it"),
    _case(
        "PyTorch module in brain floats",
        MODULE,
        f"{SIGMOID}.to(torch.bfloat16)",
        refused="computes with torch.bfloat16",
    ),
    _case("PyTorch in an estimator that declares another", OTHER, refused="differs"),
    _case("PyTorch in an estimator that declares nothing", SILENT, refused="no converter for Net"),
    _case("PyTorch behind a function", FUNCTION, SIGMOID, refused="only estimators can be converted"),
]

"""Which column of its input each column of a fitted scikit-learn transformer's output was made of.

So a contribution of ``carrier_AA`` and one of ``carrier_UA`` add up to that of ``carrier``.
"""

from __future__ import annotations

from typing import Any

Origins = list[int]
"""For each output column, the place of its input column."""


def origins(transformer: Any, width: int, made: int | None = None) -> Origins | None:
    """Return where each output column comes from; None where one is made of several, or it cannot be known.

    Parameters
    ----------
    transformer
        Fitted; a pipeline, a column transformer, a union, or one step of them.
    width
        Columns of its input.
    made
        Columns of its output, where that is known.

    Examples
    --------
    >>> from sklearn.preprocessing import OneHotEncoder
    >>> origins(OneHotEncoder().fit([["x", "u"], ["y", "u"]]), 2)
    [0, 0, 1]
    """
    found = _by_kind(transformer, width)
    if found is None and width == 1 and (made := _made(transformer) if made is None else made) is not None:
        found = [0] * made  # whatever it does, it does it to the one column
    return found if found is None or made is None or len(found) == made else None


def _by_kind(one: Any, width: int) -> Origins | None:
    from sklearn import compose, feature_selection, impute, pipeline, preprocessing
    from sklearn.base import OneToOneFeatureMixin

    if one == "passthrough":
        return list(range(width))
    if isinstance(one, pipeline.Pipeline):
        return _in_turn([step for _, step in one.steps], width)
    if isinstance(one, compose.ColumnTransformer):
        return _side_by_side(one)
    if isinstance(one, pipeline.FeatureUnion):
        parts = [origins(part, width) for _, part in one.transformer_list if part != "drop"]
        return None if any(part is None for part in parts) else [place for part in parts for place in part or ()]
    if isinstance(one, preprocessing.OneHotEncoder):
        return [place for place, count in enumerate(one._n_features_outs) for _ in range(count)]
    if isinstance(one, preprocessing.KBinsDiscretizer) and one.encode != "ordinal":
        return [place for place, count in enumerate(one.n_bins_) for _ in range(count)]
    if isinstance(one, impute.SimpleImputer):
        kept = [place for place, fill in enumerate(one.statistics_) if one.keep_empty_features or fill == fill]
        return kept + ([int(place) for place in one.indicator_.features_] if one.add_indicator else [])
    if isinstance(one, impute.MissingIndicator):
        return [int(place) for place in one.features_]
    if isinstance(one, feature_selection.SelectorMixin):
        return [int(place) for place in one.get_support(indices=True)]
    if isinstance(one, preprocessing.FunctionTransformer):
        alone = one.func is None or getattr(one.func, "nin", 0) == 1  # NumPy's functions of one number
        return list(range(width)) if alone else None
    if isinstance(one, OneToOneFeatureMixin) and not isinstance(one, preprocessing.Normalizer):
        return list(range(width))
    return None


def _in_turn(steps: list[Any], width: int) -> Origins | None:
    found = list(range(width))
    for step in steps:
        if step is None or step == "passthrough":
            continue
        own = origins(step, len(found))
        if own is None or (own and max(own) >= len(found)):
            return None
        found = [found[place] for place in own]
    return found


def _side_by_side(one: Any) -> Origins | None:
    inputs: dict[str, list[int]] | None = getattr(one, "_transformer_to_input_indices", None)
    if inputs is None:
        return None
    found: dict[int, int] = {}
    for name, part, _ in one.transformers_:
        where = one.output_indices_[name]
        count = where.stop - where.start
        if part == "drop" or not count:
            continue
        taken = list(inputs[name])
        own = origins(part, len(taken), count)
        if own is None:
            return None
        found.update({where.start + at: taken[place] for at, place in enumerate(own)})
    return [found[at] for at in range(len(found))] if sorted(found) == list(range(len(found))) else None


def _made(transformer: Any) -> int | None:
    try:
        return len(transformer.get_feature_names_out())
    except (AttributeError, NotImplementedError, ValueError):
        return None

import pipeline


def test_columns_are_named_once():
    names = pipeline.NUMBERS + pipeline.WORDS
    assert len(set(names)) == len(names) == 12

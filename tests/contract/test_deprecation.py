import re
import warnings

import pytest
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline

from skfisher.contract.deprecation import RenamedAttribute, renamed_function, renamed_parameter


def as_ours(cls):
    """Run the methods of a class as if they were written in the package."""
    scope = {"__name__": "skfisher.example", "renamed_parameter": renamed_parameter}
    source = "def fit(self, X, y=None):\n    " + (
        "self.centers_ = renamed_parameter(self, 'n_words', 'n_components', '1.2')\n    return self"
    )
    exec(source, scope)
    cls.fit = scope["fit"]
    return cls


@as_ours
class Encoder(BaseEstimator):
    words_ = RenamedAttribute("centers_", removed_in="1.2")

    def __init__(self, n_components=8, n_words="deprecated"):
        self.n_components = n_components
        self.n_words = n_words


def count(n, *, factor=1):
    """Return a number."""
    return n * factor


warned = {
    "parameter": (
        lambda: make_pipeline(Encoder(n_words=3)).fit([])[0].centers_,
        "The parameter 'n_words' of Encoder is deprecated and goes in skfisher 1.2: "
        "write 'n_components' instead.",
    ),
    "attribute": (
        lambda: Encoder(3).fit([]).words_,
        "The attribute 'words_' of Encoder is deprecated and goes in skfisher 1.2: "
        "write 'centers_' instead.",
    ),
    "function": (
        lambda: renamed_function(count, "tally", removed_in="1.2")(1, factor=3),
        "tally() is deprecated and goes in skfisher 1.2: write count() instead.",
    ),
}


@pytest.mark.parametrize("kind", warned)
def test_an_old_name_works_and_the_line_of_the_user_is_warned(kind):
    work, message = warned[kind]
    with pytest.warns(FutureWarning, match=f"^{re.escape(message)}$") as record:
        assert work() == 3
    assert [warning.filename for warning in record] == [__file__]


def test_new_names_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Encoder().fit([]).centers_ == 8


def test_an_old_attribute_is_missing_where_the_new_one_is():
    assert not hasattr(Encoder(), "words_")

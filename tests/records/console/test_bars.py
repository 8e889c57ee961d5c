import pytest
from tqdm import tqdm

from records.console import bars

SHOWN = [
    {"n": 512, "total": 99_999, "unit": "shard"},  # records verify
    {"n": 10**11, "total": 10**12, "unit": "B", "unit_scale": True, "prefix": "tokenizing"},  # pipelines records
    {"n": 10**6, "total": 84 * 10**6, "unit": "B", "unit_scale": True, "prefix": "fetching"},  # pipelines imdb
    {"n": 10**12, "total": 10**12, "unit": "B", "unit_scale": True, "prefix": "writing shards (9999)"},
]


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: shown.get("prefix", "verify"))
@pytest.mark.parametrize("columns", [40, 60, 71, 72, 80, 120])
def test_no_bar_is_cut_before_the_time_left(columns, shown):
    form, given = bars.layout(columns), dict(shown)
    n, total = given.pop("n"), given.pop("total")
    whole = tqdm.format_meter(n, total, 3_700.0, bar_format=form, ncols=None, **given)
    line = tqdm.format_meter(n, total, 3_700.0, bar_format=form, ncols=columns - 1, **given)
    assert len(line) < columns
    assert line.rstrip().endswith(whole.rstrip()[-12:])
    assert "%" in line
    assert "/s" in line or "s/" in line
    if columns >= 72:
        assert "%|" in line

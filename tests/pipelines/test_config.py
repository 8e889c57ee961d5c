"""Options that can never work are refused before anything else is done."""

import pytest

from pipelines.config import RecordsOptions
from records.errors import RemaskError
from tests.said import must_name

DATAFLOW = {"runner": "dataflow", "project": "p", "region": "us-central1", "bucket": "b"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({**DATAFLOW, "project": ""}, ("project:", "found none", "expected the one that pays", "PROJECT=")),
        ({**DATAFLOW, "region": ""}, ("region:", "found none", "expected one such as us-central1", "REGION=")),
        (
            {**DATAFLOW, "bucket": ""},
            ("bucket:", "found none", "expected one in that region", "BUCKET=", "OUT=gs://..."),
        ),
        ({**DATAFLOW, "bucket": "gs://b"}, ("bucket:", "found gs://b", "expected a name", "without gs:// and slashes")),
        (
            {**DATAFLOW, "out": "here"},
            ("out:", "found here", "expected a path in a bucket"),
        ),
        (
            {**DATAFLOW, "labels": ("Team=words",)},
            ("labels:", "found Team=words", "expected KEY=VALUE in small letters, digits, dashes and underscores"),
        ),
        (
            {**DATAFLOW, "job_name": "my_job"},
            (
                "job_name:",
                "found my_job",
                "expected up to 63 small letters, digits and dashes",
                "a letter first",
                "no dash last",
            ),
        ),
        ({"workers": -1}, ("workers:", "found -1", "expected 0 or more")),
        (
            {"runner": "portable"},
            ("job_endpoint:", "found none", "expected that of a job server", "localhost:8099", "JOB_ENDPOINT="),
        ),
        (
            {"runner": "portable", "job_endpoint": "localhost"},
            ("job_endpoint:", "found localhost", "expected that of a job server", "localhost:8099", "JOB_ENDPOINT="),
        ),
    ],
)
def test_refusals(options, said):
    with pytest.raises(RemaskError) as refused:
        RecordsOptions(**options)
    must_name(str(refused.value), *said)


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        ({}, "out/sample"),
        (DATAFLOW, "gs://b/records/sample"),
        ({**DATAFLOW, "csv": ("gs://in/2024/imdb.csv.gz",)}, "gs://b/records/imdb"),
        ({**DATAFLOW, "csv": ("gs://in/*.csv",)}, "gs://b/records/records"),
        ({**DATAFLOW, "csv": ("gs://in/a.csv", "gs://in/b.csv")}, "gs://b/records/records"),
        ({**DATAFLOW, "bucket": "", "out": "gs://c/mine"}, "gs://c/mine"),
    ],
)
def test_where_the_data_set_goes(options, folder):
    assert RecordsOptions(**options).folder == folder

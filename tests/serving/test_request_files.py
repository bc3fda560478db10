"""Reading request traces, and refusing what is none."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from memscope.errors import InputFileError
from memscope.serving.request_files import read_requests
from tests.oracles import DATA, needs_shared

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
PLAIN = "arrival_s,prompt_tokens,output_tokens\n"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


def _file(folder: Path, content: str | bytes, name: str = "requests.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_azure_times_are_dates(tmp_path: Path) -> None:
    rows = "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n"
    table = read_requests(_file(tmp_path, AZURE + rows))
    assert table.arrival_us.tolist() == [0, 52_000]
    assert table.prompt_tokens.tolist() == [4808, 3180]
    assert table.output_tokens.tolist() == [10, 8]
    assert not table.has_prefixes


def test_requests_are_sorted_by_arrival(tmp_path: Path) -> None:
    table = read_requests(_file(tmp_path, PLAIN + "5,1,2\n3.5,3,4\n"))
    assert table.arrival_us.tolist() == [0, 1_500_000]
    assert table.prompt_tokens.tolist() == [3, 1]


def test_a_plain_file_may_say_how_many_samples_are_asked_for(tmp_path: Path) -> None:
    table = read_requests(_file(tmp_path, "arrival_s,prompt_tokens,n_samples,output_tokens\n5,1,4,2\n3.5,3,1,4\n"))
    assert table.n_samples.tolist() == [1, 4]
    assert table.output_tokens.tolist() == [4, 2]
    assert read_requests(_file(tmp_path, PLAIN + "5,1,2\n")).n_samples.tolist() == [1]
    for wrong in ("0", "1.5", "-1", "many", "1e30", ""):
        with pytest.raises(InputFileError, match=r"row 2: '.*' is not a number of samples from 1"):
            read_requests(_file(tmp_path, f"arrival_s,prompt_tokens,output_tokens,n_samples\n5,1,4,{wrong}\n"))


def test_failed_calls_of_burstgpt_are_left_out(tmp_path: Path) -> None:
    rows = "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,Conversation log\n"
    table = read_requests(_file(tmp_path, BURST + rows))
    assert table.prompt_tokens.tolist() == [472]


def test_mooncake_has_prefixes(tmp_path: Path) -> None:
    rows = (
        '{"timestamp": 3000, "input_length": 600, "output_length": 5, "hash_ids": [7, 9]}\n'
        '{"timestamp": 0, "input_length": 512, "output_length": 6, "hash_ids": [7]}\n'
    )
    table = read_requests(_file(tmp_path, gzip.compress(rows.encode()), "trace.jsonl.gz"))
    assert table.arrival_us.tolist() == [0, 3_000_000]
    assert table.chunk_start.tolist() == [0, 1, 3]
    assert table.chunk_id.tolist() == [0, 0, 1]
    assert table.chunk_tokens == 512


@needs_shared
def test_the_published_azure_trace_is_read_whole() -> None:
    table = read_requests(DATA / "serving" / "AzureLLMInferenceTrace_code.csv.gz")
    assert len(table) == 8_819
    assert int(table.arrival_us[-1]) == pytest.approx(3435.948e6, rel=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "row 1 does not name the columns"),
        (PLAIN, "has no request"),
        (PLAIN + "0,1,1\n0,x,1\n", "row 3: 'x' is not a number of tokens from 1"),
        (PLAIN + "0,1,1\n0,0,1\n", "row 3: '0' is not a number of tokens from 1"),
        (PLAIN + "0,1.5,1\n", "row 2: '1.5' is not a number of tokens"),
        (PLAIN + "0,nan,1\n", "row 2: 'nan' is not a number of tokens"),
        (PLAIN + "0,1\n", "row 2 has 2 columns, 3 are needed"),
        (PLAIN + "yesterday,1,1\n", "row 2: 'yesterday' is neither seconds nor a date and time"),
        (PLAIN + "-1,1,1\n", "row 2: '-1' is not a time in seconds"),
        (PLAIN + "nan,1,1\n", "row 2: 'nan' is not a time in seconds"),
        (AZURE + "2023-13-16 18:17:03,1,1\n", "row 2: .* is neither seconds nor a date and time"),
        (PLAIN + '0,"1,1\n', "is not CSV"),
        ('{"timestamp": 0}\n', "row 1: timestamp, input_length and output_length must be numbers"),
        ('{"timestamp": 0, "input_length": 600, "output_length": 1, "hash_ids": [1]}', "row 1: 2 hash_ids are needed"),
        ('{"timestamp": 0, "input_length": 6, "output_length": 1, "hash_ids": [-1]}', "must be whole numbers from 0"),
        ("{}\n{\n", "row 1: timestamp"),
        ('{"timestamp": 0, "input_length": 6, "output_length": 1, "hash_ids": [1]}\n{\n', "row 2 is not JSON"),
        (b"\xff\xfe\x00", "is not text"),
        (b"\x1f\x8b\x08rest", "cannot be read"),
    ],
)
def test_what_is_no_trace_is_named_with_its_row(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = _file(tmp_path, content)
    with pytest.raises(InputFileError, match=message) as error:
        read_requests(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="No such file"):
        read_requests(tmp_path / "none.csv")

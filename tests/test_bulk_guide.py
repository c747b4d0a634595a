"""The commands of the page on long jobs run as they stand there, in order."""

import gzip
import io
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from bgert.commands.main import main
from bgert_export import export

PAGE = Path(__file__).resolve().parents[1] / "docs" / "BULK.md"


def test_the_commands_run(write_model, make_reranker_checkpoint, tmp_path, monkeypatch, capsys):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra `parquet`")
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    export(write_model(Path("encoder")), Path("bge-small-en-v1.5"), verify=False, pooling="cls", normalize=True)
    export(make_reranker_checkpoint(num_labels=1), Path("bge-reranker-base"), verify=False)
    texts = ["a file", "the folder", "copy text"]
    rows = [{"id": number, "title": text.upper(), "body": text, "query": "copy"} for number, text in enumerate(texts)]
    Path("docs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Path("notes.txt").write_text("\n".join(texts))
    for name in ("crawl/1.parquet", "crawl/2.parquet", "more/deeper/1.parquet", "pairs.parquet"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), name)
    pq.write_table(pa.Table.from_pylist(rows).rename_columns(["id", "title", "text", "query"]), "docs.parquet")
    Path("docs.jsonl.gz").write_bytes(gzip.compress(Path("docs.jsonl").read_bytes()))
    blocks = "".join(re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL))
    lines = re.findall(r"^(?:gzip -dc (\S+) \| )?bgert (.*)$", blocks, re.MULTILINE)
    assert len(lines) == len(blocks.splitlines()) == 8
    piped = ""
    for source, command in lines:
        content = gzip.decompress(Path(source).read_bytes()) if source else b""
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert main([*shlex.split(command), "--threads", "1"]) == 0, capsys.readouterr().err
        out = capsys.readouterr().out
        piped += out if source else ""
    assert [json.loads(line)["id"] for line in piped.splitlines()] == [0, 1, 2]
    assert pq.read_schema("scored.parquet").names == ["id", "title", "body", "query", "score"]
    assert np.load("vectors.npy").shape == (3, 64)
    assert (
        pq.read_table("vectors").column("embedding").to_pylist()
        == pq.read_table("vectors.parquet").column("embedding").to_pylist()
    )

"""The table of a run."""

from __future__ import annotations

from pathlib import Path

from fractalgen.training.loggers import TableLog


def test_a_table_is_continued_with_a_row_for_each_step(tmp_path: Path) -> None:
    """Rows of one step are joined; what a killed run left behind its checkpoint, or cut short, goes."""
    file = tmp_path / "lightning_logs" / "run" / "metrics.csv"
    file.parent.mkdir(parents=True)
    file.write_text("loss,step,val\n5,2,\n4,4,\n,4,23.5\n3,6,\n0.1,8")
    log = TableLog(str(tmp_path), "run", step=4)
    log.log_metrics({"loss": 2}, 6)
    log.log_metrics({"val": 9}, 6)
    log.log_metrics({"loss": 1, "rate": 7}, 8)
    assert file.read_text().split() == ["loss,step,val,rate", "5,2,,", "4,4,23.5,", "2,6,9,", "1,8,,7"]
    file.write_text(file.read_text() + "0.")
    TableLog(str(tmp_path), "run", step=8).log_metrics({"loss": 0}, 9)
    assert file.read_text().split()[-2:] == ["1,8,,7", "0,9,,"]

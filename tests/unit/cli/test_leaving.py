"""What nobody foresaw, as the end of a command."""

import os

import pytest

from logfan.cli.leaving import report
from logfan.runtime.foreign_text import hide


def test_it_is_shown_with_its_traceback_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    hide("s3cret-of-leaving")
    with pytest.raises(KeyError) as raised:
        raise KeyError("s3cret-of-leaving")
    assert report(raised.value) == os.EX_SOFTWARE
    shown = capsys.readouterr().err
    assert "test_leaving.py" in shown
    assert "error  internal fault: KeyError: " in shown
    assert "please report it" in shown
    assert "s3cret-of-leaving" not in shown

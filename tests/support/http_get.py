"""GET, whatever the answer."""

import urllib.error
import urllib.request

from support.waiting import PATIENCE_SECONDS


def get(url: str) -> tuple[int, str]:
    """Status and body; status 0 where nothing listens."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""

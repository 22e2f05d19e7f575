"""`logfan doctor`: one function a check, in a table (`checks.CHECKS`). Changes nothing anywhere."""

"""Production records: traces and logs read, filtered, sampled with weights and redacted, as datasets; drift
between two of them; what users said, joined to answers.

`main.take` makes a dataset of files, `drift.compare` compares two, `feedback.bring` joins what users said.
"""

"""The child process that holds lm_eval, run as a folder by the interpreter that has it.

That interpreter need not have evalrun, so nothing but the standard library and lm_eval is imported here. It
reads one JSON document a line on standard input and answers each by one on standard output; what lm_eval
prints goes to standard error. All contact with lm_eval is in this folder: loading, templates, few-shot picks,
filters, `process_results`, aggregation. Documents and answers pass as files, one JSON line a document.

Why a process of its own: lm_eval takes a second to import, sets the global random seeds, brings its own
`datasets`, and opens pools of processes for its bootstrap.
"""

"""Published tasks by lm-evaluation-harness, and suites and results of other tools.

The door to lm_eval is `plan.plan_tasks`; nothing of this room is imported by a suite without `tasks`.
"""

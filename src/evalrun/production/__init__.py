"""After the release: a deployment is probed, what it does is compared with what was promised, and experiments
on its users are concluded.

The room's doors: `probe` (turns and their schedule), `summary` (what they come to), `experiment`.
Alerts with state are those of `gates.alarms`.
"""

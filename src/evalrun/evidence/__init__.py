"""Evidence that others can check: signatures of sweeps, attestations of gates, documents of what is measured.

Nothing here measures anything: it says what a finished folder holds, who vouched for it, and what is left to
be completed by people. `evalrun` speaks of evidence for a requirement; whether one is met, people say.
"""

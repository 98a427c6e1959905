"""Load: schedules of arrivals, and runs that keep to them."""

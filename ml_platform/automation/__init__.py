"""What happens by itself: sensors, schedules, alerts, and runs that died."""

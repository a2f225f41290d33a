"""Sum up a generation's reward log by local days, for reports."""

"""Plan, supervisord and the Coordinator: which processes run, and what each one owns."""

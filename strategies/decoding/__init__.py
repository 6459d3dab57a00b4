"""What strategies share: the contract, plans, the one loop, orders, schedules, guidance, sampling."""

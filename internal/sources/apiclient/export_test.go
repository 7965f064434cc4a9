package apiclient

// ClockWasSet is what Run does when it sees that the wall clock was set, which no
// test can do.
func (b *Budgets) ClockWasSet() { b.saveAnew() }

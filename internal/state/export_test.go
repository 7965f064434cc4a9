package state

// Migrations is how many migrations there are: each needs a test.
func Migrations() int { return len(migrations) }

package sink

// SetSteps makes f do what changes something on the disk by way of step, also in
// the background.
func (f *File) SetSteps(step func(step string, op func() error) error) { f.steps = step }

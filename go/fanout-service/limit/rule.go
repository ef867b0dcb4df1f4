package limit

// queueByDefault is how many calls may wait for a provider when no rule says.
const queueByDefault = 1000

// forKey is the rule for each key of a provider.
func (c *Config) forKey(provider string) Rule {
	merged := c.Default
	for _, general := range []bool{true, false} {
		for _, rule := range c.Rules {
			if rule.Model == "" && (rule.Provider == "") == general && (general || rule.Provider == provider) {
				merged = merged.with(rule)
			}
		}
	}
	merged.Provider, merged.Model = provider, ""
	if merged.Queue == 0 {
		merged.Queue = queueByDefault
	}
	return merged
}

// forModel is the rule for a model with each key: the bounds of its own rules, and whether they
// adapt, which is inherited.
func (c *Config) forModel(provider, model string) Rule {
	merged := Rule{Provider: provider, Model: model, Adaptive: c.forKey(provider).Adaptive}
	for _, rule := range c.Rules {
		if rule.Provider == provider && rule.Model == model && model != "" {
			merged = merged.with(rule)
		}
	}
	return merged
}

// with is r where rule says nothing, else rule.
func (r Rule) with(rule Rule) Rule {
	if rule.MaxConcurrent != 0 {
		r.MaxConcurrent = rule.MaxConcurrent
	}
	if rule.Adaptive != nil {
		r.Adaptive = rule.Adaptive
	}
	if rule.Queue != 0 {
		r.Queue = rule.Queue
	}
	if rule.RequestsPerMinute != 0 {
		r.RequestsPerMinute = rule.RequestsPerMinute
	}
	if rule.TokensPerMinute != 0 {
		r.TokensPerMinute = rule.TokensPerMinute
	}
	return r
}

func (r Rule) adaptive() bool { return r.Adaptive == nil || *r.Adaptive }

package sqlstore

import (
	"fmt"
	"strings"
)

// conditions collects the parts of a WHERE clause.
type conditions struct {
	dialect *dialect
	parts   []string
	args    []any
}

// add adds a part. Each %s in it is the next parameter.
func (c *conditions) add(part string, args ...any) {
	params := make([]any, len(args))
	for i := range args {
		params[i] = c.dialect.param(len(c.args) + i + 1)
	}
	c.parts = append(c.parts, fmt.Sprintf(part, params...))
	c.args = append(c.args, args...)
}

// where is the clause, or empty when there are no parts.
func (c *conditions) where() string {
	if len(c.parts) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.parts, " AND ")
}

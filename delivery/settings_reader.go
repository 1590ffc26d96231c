package delivery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// LoadSettings reads the JSON file at path and the process's environment over
// it, as ParseSettings says. An empty path is no file: then the environment is
// read over the defaults. If the file can't be read, the error matches both
// ErrConfig and the system's own error (fs.ErrNotExist for one).
func LoadSettings(path string) (Settings, error) {
	var document []byte
	if path != "" {
		content, err := os.ReadFile(path)
		if err != nil {
			return Settings{}, fmt.Errorf("%w: settings: %w", ErrConfig, err)
		}
		document = content
	}
	return ParseSettings(document, os.Environ())
}

// ParseSettings reads a JSON document, and over it an environment, in the form
// that os.Environ returns. A setting that neither names has its default. A nil
// document is none, an empty one is an error; environ may be nil.
//
// The document may be a whole application's settings: members beside
// MessageReliability belong to others and are ignored. It is JSON (RFC 8259),
// without comments; a byte order mark before it is skipped.
//
// The variables have the names that ASP.NET's configuration gives them, two
// underscores between the parts, and plain values:
//
//	MessageReliability__MaxRetries=8
//	MessageReliability__Features__Batch=false
//
// As in ASP.NET, upper and lower case are the same in all names, and in the values
// true and false of a variable, and blanks around a variable's value don't count.
// Variables are read whose names begin with MessageReliability__. A name with
// colons, which only some systems allow, is an error rather than ignored.
//
// A duration with a unit needs no quotes: MessageReliability__MaxRetryDelay=90s. It
// takes the place of MaxRetryDelaySeconds in the document. Both in one source are an
// error, whether or not they say the same.
//
// All faults are reported at once, joined, each a *SettingsError: what is not
// JSON, unknown names, settings given twice, wrong types (null and numbers in
// quotes among them), fractions where whole numbers are wanted, values out of
// bounds even if a variable has a better one, and values that contradict each
// other.
func ParseSettings(document []byte, environ []string) (Settings, error) {
	reader := newSettingsReader(DefaultSettings())
	if document != nil {
		reader.document(document)
	}
	reader.environment(environ)
	return reader.result()
}

// settingsReader gathers settings and the faults of their sources.
type settingsReader struct {
	settings *Settings
	known    []setting      // of settings
	names    map[any]string // by target of known: the key by which it was read last
	faulty   map[any]bool   // the targets of known that had a fault
	faults   []error
}

func newSettingsReader(settings Settings) *settingsReader {
	return &settingsReader{settings: &settings, known: settings.all(), names: map[any]string{}, faulty: map[any]bool{}}
}

// result is what was read, if there was no fault.
func (r *settingsReader) result() (Settings, error) {
	r.faults = append(r.faults, r.settings.contradictions(r.faulty, r.names)...)
	if len(r.faults) > 0 {
		return Settings{}, errors.Join(r.faults...)
	}
	return *r.settings, nil
}

func (r *settingsReader) fault(key, problem string) {
	r.faults = append(r.faults, &SettingsError{Key: key, Problem: problem})
}

// document reads an application's JSON.
func (r *settingsReader) document(document []byte) {
	document = bytes.TrimPrefix(document, []byte("\ufeff"))
	if !r.wellFormed(document) {
		return
	}
	members, ok := membersOf(document)
	if !ok {
		r.fault("", "are "+kindOf(document)+", want a JSON object with the member "+settingsSection)
		return
	}
	found := false
	for _, member := range members {
		below, ours := cutSection(member.name)
		switch {
		case ours && strings.HasPrefix(below, ":"):
			r.fault(member.name, "is not read, want an object "+settingsSection+" with members")
		case !ours || below != "":
		case found:
			r.fault(member.name, "is there twice")
		default:
			found = true
			r.object("", member.value)
		}
	}
}

// section reads the JSON of the section alone.
func (r *settingsReader) section(section []byte) {
	if r.wellFormed(section) {
		r.object("", section)
	}
}

// wellFormed is a check for the whole, so that what comes after it can't fail.
func (r *settingsReader) wellFormed(document []byte) bool {
	var whole json.RawMessage
	err := json.Unmarshal(document, &whole)
	if err == nil {
		return true
	}
	problem := "are no JSON: " + err.Error()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		before := document[:min(int(syntax.Offset), len(document))]
		problem += fmt.Sprintf(" (line %d)", 1+bytes.Count(before, []byte("\n")))
	}
	r.fault("", problem)
	return false
}

// object reads the section, or an object in it, whose settings have keys that
// begin with prefix.
func (r *settingsReader) object(prefix string, value json.RawMessage) {
	members, ok := membersOf(value)
	if !ok {
		r.fault(strings.TrimSuffix(settingsSection+"."+prefix, "."), "is "+kindOf(value)+", want an object")
		return
	}
	seen := map[string]bool{}
	given := map[any]string{} // the member's name by the setting's target
	for _, member := range members {
		path := settingsSection + "." + prefix + member.name
		name := fold(member.name)
		if seen[name] {
			r.fault(path, "is there twice")
			continue
		}
		seen[name] = true
		if prefix == "" && name == "features" {
			r.object("Features.", member.value)
			continue
		}
		var known *setting
		if !strings.Contains(name, ".") {
			known = r.find(prefix + name)
		}
		if known == nil {
			r.fault(path, "is unknown, want one of "+strings.Join(r.keys(prefix), ", "))
			continue
		}
		if other, twice := given[known.target]; twice {
			r.faulty[known.target] = true
			r.fault(path, "is given beside "+other+", want one of the two")
			continue
		}
		given[known.target] = member.name
		if !r.read(known, string(member.value)) {
			r.fault(path, "is "+kindOf(member.value)+", want "+known.wanted())
		}
	}
}

// read takes a setting from a JSON literal, if that is valid.
func (r *settingsReader) read(known *setting, literal string) (valid bool) {
	valid = known.read(literal)
	if !valid {
		r.faulty[known.target] = true
	}
	r.names[known.target] = known.key
	return valid
}

// find returns the setting with that key, nil if there is none.
func (r *settingsReader) find(key string) *setting {
	for i, known := range r.known {
		if fold(known.key) == fold(key) {
			return &r.known[i]
		}
	}
	return nil
}

// keys lists what an object may have.
func (r *settingsReader) keys(prefix string) []string {
	var names []string
	for _, known := range r.known {
		if below, ok := strings.CutPrefix(known.key, prefix); ok {
			name, _, _ := strings.Cut(below, ".")
			names = append(names, name)
		}
	}
	return slices.Compact(names)
}

// environment reads the variables that are ours.
func (r *settingsReader) environment(environ []string) {
	seen := map[any]string{} // the variable's name by the setting's target
	for _, variable := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(variable, "=")
		key, ours := keyOfVariable(name)
		if !ours {
			continue
		}
		known := r.find(key)
		if known == nil {
			r.fault(name, "is unknown, want one of "+strings.Join(r.variables(), ", "))
			continue
		}
		if other, twice := seen[known.target]; twice {
			r.fault(name, "is set beside "+other+", want one of the two")
			continue
		}
		seen[known.target] = name
		if !r.read(known, known.literalOf(strings.TrimSpace(value))) {
			r.fault(name, fmt.Sprintf("is %.32q, want %s", value, known.wanted()))
		}
	}
}

// literalOf is a variable's value as JSON, which may be nobody's.
func (s setting) literalOf(value string) string {
	if s.hasUnit() {
		return strconv.Quote(value)
	}
	if folded := fold(value); folded == "true" || folded == "false" {
		return folded
	}
	if !json.Valid([]byte(value)) {
		return ""
	}
	return value
}

// keyOfVariable is the key that a variable's name stands for, and whether the
// variable is one of ours. The key may be nobody's.
func keyOfVariable(name string) (key string, ours bool) {
	below, ours := cutSection(name)
	switch {
	case !ours:
		return "", false
	case strings.HasPrefix(below, ":"):
		return "", true
	case !strings.HasPrefix(below, "__"):
		// One underscore is no separator: in a cluster that has a service of this
		// name there are variables like MESSAGERELIABILITY_PORT.
		return "", false
	case strings.Contains(below, "."):
		return "", true
	}
	return strings.ReplaceAll(below[2:], "__", "."), true
}

// variables lists the names that an environment may have.
func (r *settingsReader) variables() []string {
	names := make([]string, len(r.known))
	for i, known := range r.known {
		names[i] = settingsSection + "__" + strings.ReplaceAll(known.key, ".", "__")
	}
	return names
}

// cutSection is what follows the section's name in name, if that begins with it.
func cutSection(name string) (below string, found bool) {
	if len(name) < len(settingsSection) || fold(name[:len(settingsSection)]) != fold(settingsSection) {
		return "", false
	}
	return name[len(settingsSection):], true
}

// fold makes names equal that differ in case. It leaves what is not ASCII
// alone, so that no two names are equal here and different there.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, name)
}

// member is one of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// membersOf lists the members of a JSON object in their order, those with the
// same name too. It is false if well-formed JSON is something else.
func membersOf(document []byte) ([]member, bool) {
	decoder := json.NewDecoder(bytes.NewReader(document))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return nil, false
	}
	var members []member
	for decoder.More() {
		var value json.RawMessage
		name, err := decoder.Token()
		if err != nil || decoder.Decode(&value) != nil {
			return nil, false
		}
		text, _ := name.(string)
		members = append(members, member{name: text, value: value})
	}
	return members, true
}

// kindOf says what a JSON value is: numbers and words as they are, of texts and
// what else may hold a secret only the kind.
func kindOf(value []byte) string {
	value = bytes.TrimSpace(value)
	if len(value) == 0 {
		return "nothing"
	}
	switch value[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	}
	if len(value) > 32 {
		return string(value[:32]) + "..."
	}
	return string(value)
}

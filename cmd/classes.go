package cmd

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/natsbus"
)

func (a *app) listClasses() *cobra.Command {
	return &cobra.Command{
		Use: "classes [CLASS]", Short: "List the classes that are served, with methods and events; of one also schemas and limits",
		Example: "  perdure classes\n  perdure classes counter\n  perdure classes counter --json | jq .methods.increment.in",
		Args:    cobra.MaximumNArgs(1), ValidArgsFunction: a.completeClass,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(c.Context(), func(ctx context.Context, to *natsbus.Client) error {
				list, err := to.Classes(ctx)
				if err != nil {
					return err
				}
				if len(args) == 0 {
					return a.printClasses(list)
				}
				i := slices.IndexFunc(list, func(c engine.ClassInfo) bool { return c.Name == args[0] })
				if i < 0 {
					return advise(engine.Errorf(engine.NotFound, "no class %q", args[0]), "see `perdure classes`")
				}
				return a.printClass(&list[i])
			})
		},
	}
}

func (a *app) printClasses(list []engine.ClassInfo) error {
	if a.json {
		return a.printJSON(list)
	}
	r := a.rows("class", "kind", "name", "argument", "result")
	for i := range list {
		addClass(r, &list[i], typeOf)
	}
	return r.end()
}

// printClass prints all that there is to say of a class.
func (a *app) printClass(c *engine.ClassInfo) error {
	if a.json {
		return a.printJSON(c)
	}
	r := a.rows("class", "kind", "name", "argument", "result")
	addClass(r, c, func(schema json.RawMessage) string { return string(schema) })
	limits := reflect.ValueOf(c.Limits)
	for i := range limits.NumField() {
		r.add(c.Name, "limit", limits.Type().Field(i).Name, fmt.Sprint(limits.Field(i)), "")
	}
	return r.end()
}

func addClass(r *rows, c *engine.ClassInfo, show func(schema json.RawMessage) string) {
	for _, name := range slices.Sorted(maps.Keys(c.Methods)) {
		m := c.Methods[name]
		kind := "call"
		if m.Read {
			kind = "read"
		}
		r.add(c.Name, kind, name, show(m.In), show(m.Out))
	}
	for _, e := range c.Events {
		r.add(c.Name, "event", e, "", "")
	}
	if c.HTTP {
		r.add(c.Name, "http", "/"+c.Name+"/<name>/…", "", "")
	}
}

// typeOf is a schema in one word: its title, which classes in Go have.
func typeOf(schema json.RawMessage) string {
	var s struct{ Title, Type any }
	_ = json.Unmarshal(schema, &s) // whatever it is, it is shown
	title, _ := s.Title.(string)
	kind, _ := s.Type.(string)
	return cmp.Or(strings.TrimSpace(title), kind)
}

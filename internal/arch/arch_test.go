// Package arch holds the rules of the house as tests: who may import whom, and what no file may contain. Each message
// says why the rule is there.
package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

const (
	root   = "../.."
	module = "github.com/perdure/perdure/"
)

// functionLinesMax is the longest function, with its signature. The house style asks for 70; this is where the build
// ends.
const functionLinesMax = 80

// rule forbids imports. Patterns are paths below the module, or whole paths if their first element has a dot; a
// pattern that ends in /... is the package and all below it.
type rule struct {
	from  string   // whose imports
	never []string // what they must not be
	deep  bool     // through other packages neither
	why   string
}

// The direction is cmd -> gateway -> engine -> journal, snapshot.
var rules = []rule{
	{
		from: "engine/...", deep: true,
		never: []string{"github.com/nats-io/...", "github.com/cockroachdb/..."},
		why:   "contracts and tests import the engine lightly, and it has to run in a bubble: NATS and Pebble are joined to it in cmd",
	},
	{
		from: "engine/...", deep: true,
		never: []string{"gateway/...", "cmd/...", "examples/...", "journal/jetstream", "snapshot/pebblestore"},
		why:   "nothing points back: the engine knows the types of journal and snapshot, not who drives it or what stores for it",
	},
	{
		from: "journal/...", deep: true,
		never: []string{"snapshot/...", "engine/...", "gateway/...", "cmd/...", "examples/..."},
		why:   "the journal knows records and logs, not objects, and it is the truth whether there are snapshots or not",
	},
	{
		from: "snapshot/...", deep: true,
		never: []string{"journal/...", "engine/...", "gateway/...", "cmd/...", "examples/..."},
		why:   "a snapshot knows keys, not records: it is a cache that can be deleted, and must not read the log behind the engine's back",
	},
	{
		from: "gateway/...", deep: true,
		never: []string{"cmd/...", "examples/...", "snapshot/pebblestore", "github.com/cockroachdb/..."},
		why:   "the gateway is stateless: it reaches objects through the engine or by subject, and stores nothing",
	},
	{
		from: "examples/...", deep: false,
		never: []string{"gateway/...", "journal/...", "snapshot/...", "internal/..."},
		why:   "an example shows what a user can write, and a user has the engine",
	},
	{
		from: "cmd/...", deep: true,
		never: []string{"internal/history", "github.com/anishathalye/..."},
		why:   "it is for tests, and the program does not carry them",
	},
	{
		from: "internal/embed", deep: true,
		never: []string{"engine/...", "journal/...", "snapshot/...", "gateway/...", "cmd/..."},
		why:   "the embedded server knows the wire, not what is built on it",
	},
}

// standalone are packages that import the standard library and nothing else, but for what is listed with them.
var standalone = map[string][]string{
	"internal/wire":     nil,
	"internal/boottime": {"golang.org/x/sys/unix"},
	"journal":           {module + "internal/wire"},
	"journal/verify":    {module + "internal/wire", module + "journal"},
	"snapshot":          nil,
}

// pending are packages that rules name and that are still to come. Until then a rule about them holds of itself. Once
// all of them are there the list has to go, and from then on a rule that names a package that does not exist fails:
// otherwise a package that is renamed would slip out of its rules unseen.
var pending []string

// pkg is what go list says about a package of this module.
type pkg struct {
	ImportPath, Name, Dir              string
	Imports, Deps                      []string
	GoFiles, TestGoFiles, XTestGoFiles []string
}

var packages = sync.OnceValues(func() ([]pkg, error) {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Name,Dir,Imports,Deps,GoFiles,TestGoFiles,XTestGoFiles", "./...")
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list packages: %w", err)
	}
	var list []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, fmt.Errorf("list packages: %w", err)
		}
		list = append(list, p)
	}
})

func listed(t *testing.T) []pkg {
	t.Helper()
	list, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 2 {
		t.Fatalf("go list knows %d packages; the rules would hold of nothing", len(list))
	}
	return list
}

// full is a pattern with the module's path in front, if it is a path below the module.
func full(pattern string) string {
	if first, _, _ := strings.Cut(pattern, "/"); strings.Contains(first, ".") {
		return pattern
	}
	return module + pattern
}

func matches(pattern, path string) bool {
	if tree, ok := strings.CutSuffix(full(pattern), "/..."); ok {
		return path == tree || strings.HasPrefix(path, tree+"/")
	}
	return path == full(pattern)
}

func TestImportsPointOneWay(t *testing.T) {
	t.Parallel()
	for _, p := range listed(t) {
		for _, r := range rules {
			if matches(r.from, p.ImportPath) {
				checkRule(t, p, r)
			}
		}
	}
}

func checkRule(t *testing.T, p pkg, r rule) {
	t.Helper()
	imports, verb := p.Imports, "imports"
	if r.deep {
		imports, verb = p.Deps, "imports, directly or not,"
	}
	for _, path := range imports {
		// Within its own tree a package is free.
		if !matches(r.from, path) && slices.ContainsFunc(r.never, func(n string) bool { return matches(n, path) }) {
			t.Errorf("%s %s %s: %s", p.ImportPath, verb, path, r.why)
		}
	}
}

func TestOnlyMainsImportCmd(t *testing.T) {
	t.Parallel()
	for _, p := range listed(t) {
		for _, path := range p.Imports {
			if matches("cmd/...", path) && p.Name != "main" && !matches("cmd/...", p.ImportPath) {
				t.Errorf("%s imports %s: package cmd joins everything, so whoever imports it imports everything; only a main may",
					p.ImportPath, path)
			}
		}
	}
}

// TestTheServicesOfOrdersAreNotPerdure: they are a module of their own, which go list does not see from here.
func TestTheServicesOfOrdersAreNotPerdure(t *testing.T) {
	t.Parallel()
	files := 0
	walkGo(t, func(path string, _ *token.FileSet, f *ast.File, _ []string) {
		if !strings.HasPrefix(path, "examples/orders/") {
			return
		}
		files++
		for _, i := range f.Imports {
			if strings.HasPrefix(i.Path.Value, `"`+module) {
				t.Errorf("%s imports %s: the example shows that subjects and HTTP are enough", path, i.Path.Value)
			}
		}
	})
	if files == 0 {
		t.Error("examples/orders is not there: was it renamed?")
	}
}

func TestSeamsAreFreeOfDependencies(t *testing.T) {
	t.Parallel()
	for _, p := range listed(t) {
		allowed, ok := standalone[strings.TrimPrefix(p.ImportPath, module)]
		if !ok {
			continue
		}
		for _, path := range p.Imports {
			if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") && !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s: it is a contract, and a contract costs nothing to import", p.ImportPath, path)
			}
		}
	}
}

func TestRulesNameOnlyPackagesThatExist(t *testing.T) {
	t.Parallel()
	list := listed(t)
	exists := func(pattern string) bool {
		return slices.ContainsFunc(list, func(p pkg) bool { return matches(pattern, p.ImportPath) })
	}
	var named []string
	for _, r := range rules {
		named = append(append(named, r.from), r.never...)
	}
	for path := range standalone {
		named = append(named, path)
	}
	for _, pattern := range named {
		name := strings.TrimSuffix(pattern, "/...")
		if full(pattern) == module+pattern && !exists(pattern) && !slices.Contains(pending, name) {
			t.Errorf("a rule names %s, which does not exist: was it renamed?", pattern)
		}
	}
	missing := slices.ContainsFunc(pending, func(name string) bool { return !exists(name + "/...") })
	if len(pending) > 0 && !missing {
		t.Errorf("all of %v are there: empty the list pending, so that the rules about them cannot lapse", pending)
	}
}

func TestEveryPackageHasADocComment(t *testing.T) {
	t.Parallel()
	for _, p := range listed(t) {
		files := p.GoFiles
		if len(files) == 0 {
			files = slices.Concat(p.TestGoFiles, p.XTestGoFiles)
		}
		documented := slices.ContainsFunc(files, func(name string) bool {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			return err == nil && f.Doc.Text() != ""
		})
		if !documented && len(files) > 0 {
			t.Errorf("package %s has no doc comment: a reader cannot know what it is for", p.ImportPath)
		}
	}
}

// walk calls visit with every file of the repository that people wrote, by its path from the root.
func walk(t *testing.T, visit func(path string, content []byte)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)                                    // both are relative, so there always is one
		hidden := strings.HasPrefix(name, ".") && name != "." && name != ".ci" // git's and editors'
		if entry.IsDir() && (hidden || name == "data" || name == "bin") {
			return fs.SkipDir
		}
		if !entry.Type().IsRegular() || name == ".git" { // a work tree has a file of that name
			return nil
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // an editor's file, already gone
		}
		if err == nil && utf8.Valid(content) {
			visit(filepath.ToSlash(name), content)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// walkGo calls visit with every Go file of the repository, parsed.
func walkGo(t *testing.T, visit func(path string, fset *token.FileSet, f *ast.File, lines []string)) {
	t.Helper()
	walk(t, func(path string, content []byte) {
		if !strings.HasSuffix(path, ".go") || strings.Contains(path, "testdata/") {
			return
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, content, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			return
		}
		visit(path, fset, f, strings.Split(string(content), "\n"))
	})
}

var sleepReason = regexp.MustCompile(`// sleeps: \S+`)

func TestNothingSleepsWithoutAReason(t *testing.T) {
	t.Parallel()
	walkGo(t, func(path string, fset *token.FileSet, f *ast.File, lines []string) {
		for _, line := range sleeps(fset, f) {
			if !sleepReason.MatchString(lines[line-1]) {
				t.Errorf("%s:%d: time.Sleep: who sleeps to wait is too slow or too early; wait for the event, "+
					"or give the reason on the line behind // sleeps:", path, line)
			}
		}
	})
}

// sleeps are the lines of a file that name time.Sleep.
func sleeps(fset *token.FileSet, f *ast.File) []int {
	var lines []int
	ast.Inspect(f, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
				lines = append(lines, fset.Position(sel.Pos()).Line)
			}
		}
		return true
	})
	return lines
}

func TestNoFunctionIsLongerThanAScreenOrTwo(t *testing.T) {
	t.Parallel()
	walkGo(t, func(path string, fset *token.FileSet, f *ast.File, _ []string) {
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			first, last := fset.Position(fn.Pos()).Line, fset.Position(fn.End()).Line
			if lines := last - first + 1; lines > functionLinesMax {
				t.Errorf("%s:%d: %s has %d lines, want at most %d: write the phases as a list of named calls",
					path, first, fn.Name.Name, lines, functionLinesMax)
			}
		}
	})
}

// machinePath matches a path that exists on somebody's machine only. What stands before it keeps URLs out.
var machinePath = regexp.MustCompile(`(?m)(?:^|[\s"'(=:\x60])(/(?:home|Users|root|work)/[\w.-]+)`)

func TestNoFileNamesAPathOfOneMachine(t *testing.T) {
	t.Parallel()
	walk(t, func(path string, content []byte) {
		for _, m := range machinePath.FindAllSubmatch(content, -1) {
			t.Errorf("%s: %s is a path of one machine; a clone elsewhere does not have it", path, m[1])
		}
	})
}

func TestRulesCanFail(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		pattern, path string
		want          bool
	}{
		{"engine/...", module + "engine", true},
		{"engine/...", module + "engine/enginetest", true},
		{"engine/...", module + "engines", false},
		{"journal", module + "journal/jetstream", false},
		{"github.com/nats-io/...", "github.com/nats-io/nats.go/jetstream", true},
		{"github.com/nats-io/...", module + "nats-io", false},
	} {
		if got := matches(test.pattern, test.path); got != test.want {
			t.Errorf("%s matches %s: %v, want %v", test.pattern, test.path, got, test.want)
		}
	}

	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "f.go", "package f\n\nfunc g() {\n\ttime.Sleep(1)\n\ttime.After(1)\n}\n", 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := sleeps(fset, f); !slices.Equal(got, []int{4}) {
		t.Errorf("sleeps found lines %v, want 4", got)
	}
	if !sleepReason.MatchString("// sleeps: it tests a clock") || sleepReason.MatchString("// sleeps: ") {
		t.Error("a reason is wanted, and enough")
	}

	for text, want := range map[string]bool{
		"cd /ho" + "me/ann/src":             true,
		`"/wo` + `rk/main"`:                 true,
		"https://example.com/ho" + "me/ann": false,
		"./ho" + "me/ann":                   false,
	} {
		if got := machinePath.MatchString(text); got != want {
			t.Errorf("%s is a path of one machine: %v, want %v", text, got, want)
		}
	}
}

package cmd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/internal/doctor"
	"github.com/perdure/perdure/internal/natsbus"
)

// addCompletion adds cobra's command for the shells' scripts, with examples.
func addCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.Example = "  source <(perdure completion bash)"
		for _, shell := range c.Commands() {
			shell.Example = "  " + shell.CommandPath() + " --help    # says where it goes"
		}
	}
}

// completeFor is how long completion asks the server; a shell must not hang.
const completeFor = 500 * time.Millisecond

// ask is withClient for completion: quick, and silent when nobody answers.
func (a *app) ask(f func(ctx context.Context, c *natsbus.Client) []string) ([]string, cobra.ShellCompDirective) {
	a.nats.timeout = completeFor
	var found []string
	err := a.withClient(context.Background(), func(ctx context.Context, c *natsbus.Client) error {
		found = f(ctx, c)
		return nil
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) classNames(ctx context.Context, c *natsbus.Client, suffix string) (names []string) {
	list, _ := c.Classes(ctx) // no answer, no names
	for _, cl := range list {
		names = append(names, cl.Name+suffix)
	}
	return names
}

func (a *app) completeClass(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.ask(func(ctx context.Context, c *natsbus.Client) []string { return a.classNames(ctx, c, "") })
}

// completeObject completes CLASS/NAME with the names that there are.
func (a *app) completeObject(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	class, prefix, slash := strings.Cut(typed, "/")
	if !slash {
		names, directive := a.ask(func(ctx context.Context, c *natsbus.Client) []string { return a.classNames(ctx, c, "/") })
		return names, directive | cobra.ShellCompDirectiveNoSpace
	}
	return a.ask(func(ctx context.Context, c *natsbus.Client) (names []string) {
		list, _, _ := c.Objects(ctx, class, prefix, "", 100) // no answer, no names
		for _, o := range list {
			names = append(names, o.Class+"/"+o.Name)
		}
		return names
	})
}

// completeCall completes the object, then the method.
func (a *app) completeCall(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return a.completeObject(c, args, typed)
	}
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	class, _, _ := strings.Cut(args[0], "/")
	return a.ask(func(ctx context.Context, c *natsbus.Client) (names []string) {
		list, _ := c.Classes(ctx) // no answer, no names
		for _, cl := range list {
			for name := range cl.Methods {
				if cl.Name == class {
					names = append(names, name)
				}
			}
		}
		return names
	})
}

func (a *app) completeWorker(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.ask(func(ctx context.Context, c *natsbus.Client) (ids []string) {
		s, _ := doctor.ReadSystem(ctx, c) // no answer, no names
		for _, w := range s.Workers {
			ids = append(ids, w.ID)
		}
		return append(ids, s.Silent...)
	})
}

func (a *app) completePartition(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.ask(func(ctx context.Context, c *natsbus.Client) (numbers []string) {
		s, _ := doctor.ReadSystem(ctx, c) // no answer, no numbers
		for _, p := range s.Partitions {
			numbers = append(numbers, fmt.Sprint(p.Partition))
		}
		return numbers
	})
}

// completeMove completes the partition, then the worker.
func (a *app) completeMove(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return a.completePartition(c, args, typed)
	}
	return a.completeWorker(c, args[1:], typed)
}

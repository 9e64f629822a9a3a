// Command tender runs Compose files as a managed system. See internal/cli.
package main

import (
	"os"

	"github.com/tenderhq/tender/internal/cli"
)

// version is set by the build: -X main.version=1.2.3
var version = "dev"

func main() {
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	os.Exit(cli.Main(os.Args[1:], cli.Stdio{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.Environ(), Dir: dir, Version: version,
	}))
}

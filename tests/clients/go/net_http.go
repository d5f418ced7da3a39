// Pays with net/http: go run pay.go URL
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	body := strings.NewReader(`{"amount": "12.50"}`)
	asked, err := http.NewRequest("POST", os.Args[1], body)
	if err != nil {
		log.Fatal(err)
	}
	asked.Header.Set("Content-Type", "application/json")
	if key := os.Getenv("KEY"); key != "" {
		asked.Header.Set("Authorization", "Bearer "+key)
	}
	answer, err := http.DefaultClient.Do(asked)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.StatusCode, string(text))
}

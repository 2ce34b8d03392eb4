// Stores, lists and verifies an event with the client that oapi-codegen generates. Arguments: URL.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"example.com/client/cairn"
)

func main() {
	client, err := cairn.NewClientWithResponses(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	agent, action := "go-client", "TOOL_CALL"
	event := cairn.NewEvent{AgentId: agent, ActionType: &action}
	stored, err := client.PostEventWithResponse(ctx, nil, event)
	if err != nil || stored.JSON201 == nil || stored.JSON201.Sequence != 1 {
		log.Fatal("post: ", err, stored)
	}
	listed, err := client.ListEventsWithResponse(ctx, &cairn.ListEventsParams{AgentId: &agent})
	if err != nil || listed.JSON200 == nil || len(*listed.JSON200) != 1 {
		log.Fatal("list: ", err, listed)
	}
	verdict, err := client.VerifyChainWithResponse(ctx, &cairn.VerifyChainParams{AgentId: &agent})
	if err != nil || verdict.JSON200 == nil {
		log.Fatal("verify: ", err, verdict)
	}
	chain, err := verdict.JSON200.AsValidChain()
	if err != nil || !chain.Valid {
		log.Fatal("verify: ", err, chain)
	}
	fmt.Println("oapi-codegen: an event stored, listed and verified")
}

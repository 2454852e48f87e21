package sim

import (
	"fmt"

	"github.com/dotring/dotring/loadtest/history"
)

// Bug is a mistake planted on purpose, to show that it is found.
type Bug string

// The planted bugs. Those of causality are named as in the model of causality, those of layouts as in that of layouts.
const (
	PutCtx      Bug = "putctx"
	RepeatCtx   Bug = "repeatctx"
	Reuse       Bug = "reuse"
	Crash       Bug = "crash"
	Reopen      Bug = "reopen"
	Rollback    Bug = "rollback"
	Absent      Bug = "absent"
	PerKey      Bug = "perkey"
	Ctx         Bug = "ctx"
	MintLoses   Bug = "mintloses"
	EarlyAck    Bug = "earlyack"
	DropContext Bug = "dropctx"
	TrustDisk   Bug = "trustdisk"
	Recount     Bug = "recount"
	OneEpoch    Bug = "one_epoch"
	NoFence     Bug = "nofence"
	SyncOne     Bug = "sync1"
	ReadFence   Bug = "readfence"
	HashBlind   Bug = "hash"
	AckAll      Bug = "ackall"
	Stamp       Bug = "stamp"
	Forgetful   Bug = "forgetful"
	Mute        Bug = "mute"
	HintTwice   Bug = "hinttwice"
	HintActor   Bug = "hintactor"

	DeleteBeforeConfirm Bug = "deletebeforeconfirm"
	OldView             Bug = "oldview"
	LeftLate            Bug = "leftlate"
	DeadNeed            Bug = "deadneed"
	LateRepair          Bug = "late"
	GCOwners            Bug = "gc_owners"
	GCHints             Bug = "gc_hints"
	GCGrace             Bug = "gc_grace"
	GCEqual             Bug = "gc_equal"

	PruneOwners Bug = "prune_owners"
	PruneHints  Bug = "prune_hints"
	PruneOnce   Bug = "prune_once"
	PruneIdle   Bug = "prune_idle"
	PruneAge    Bug = "prune_age"
	PruneForget Bug = "prune_forget"
	PruneStale  Bug = "prune_stale"
)

// PlantedBug says what a bug does, and which promise it was expected to break before it was ever run.
type PlantedBug struct {
	Bug    Bug
	What   string
	Breaks history.Promise
	// Profile is the kind of swarm that shows it.
	Profile Profile
}

// Planted lists all planted bugs.
func Planted() []PlantedBug {
	return []PlantedBug{
		{PutCtx, "a put answers the record's clock, not what it came with and its own dot", history.Durable, Usual},
		{RepeatCtx, "a put without a context that is asked for again answers the clock of the record as it is by then", history.Durable, Usual},
		{Forgetful, "a node that lives anew, and has forgotten the request, is asked again for a mint that may have happened", history.Faithful, Usual},
		{Reuse, "a start goes on with the old actor, at an old counter", history.UniqueDots, Usual},
		{Crash, "a start after a crash goes on with the old actor, and skips ahead in the counter", history.Durable, Usual},
		{Reopen, "a node whose engine was reopened goes on with the old actor", history.Durable, Usual},
		{Rollback, "a clean start goes on with the actor on disk, and a counter of one's own that others show is ignored", history.UniqueDots, Rollbacks},
		{Absent, "a failed local read is taken for absence", history.Durable, Usual},
		{PerKey, "counters are each key's own", history.UniqueDots, Usual},
		{Ctx, "the minted clock leaves out the context", history.Faithful, Usual},
		{MintLoses, "a mint drops siblings that its context does not cover", history.Durable, Usual},
		{EarlyAck, "a write is acknowledged before it is synced", history.Current, Usual},
		{DropContext, "a repair is sent without the clock of what its siblings superseded", history.Faithful, Usual},
		{TrustDisk, "an emptied or rolled-back disk is not noticed", history.Current, Usual},
		{Recount, "an older disk that comes back is taken for the one that was emptied since, by its higher commit number", history.Current, Rollbacks},
		{OneEpoch, "a write is counted in the newest layout only", history.Current, Usual},
		{NoFence, "nodes take writes of all layouts", history.Current, Usual},
		{SyncOne, "a new owner syncs from one old owner", history.Current, Usual},
		{ReadFence, "nodes answer reads of layouts that are not in use any more", history.Current, Usual},
		{HashBlind, "the numbers of layouts are compared, and not their contents", history.Current, Proposals},
		{AckAll, "the sync does not wait for acknowledgements, neither of all nor of its sources", history.Current, Hasty},
		{Stamp, "only the newest layout that a write knows is compared, and not all that are live", history.Current, Proposals},
		{Mute, "gateways keep to themselves what they know of layouts", history.Convergent, Proposals},
		{DeadNeed, "a dead owner is taken for one that was pulled from", history.Current, Members},
		{LateRepair, "a record is taken however long it was on its way, so that a late repair revives a collected value", history.Faithful, Collection},
		{GCOwners, "a tombstone is collected though a member is down", history.Faithful, Collection},
		{GCHints, "a tombstone is collected whatever hints there are, or were given away", history.Faithful, Leavers},
		{GCGrace, "a tombstone is collected at once when all owners hold it", history.Faithful, Collection},
		{GCEqual, "what is removed need not be the tombstone that was proven", history.Current, Collection},
		{HintTwice, "a machine that keeps a write for several owners is counted for each of them", history.Durable, Standing},
		{HintActor, "a fallback goes on with its actor after a hint left that it had written in", history.Durable, Standing},
		{DeleteBeforeConfirm, "what a node is not to own any more is deleted at once, before its owners have confirmed that they hold it", history.Current, Leftovers},
		{OldView, "a rolled-back node refills by the layouts on its disk, without asking for newer ones", history.Current, Leftovers},
		{PruneOwners, "a dead actor's entry leaves clocks though a member is down", history.Faithful, Actors},
		{PruneHints, "a dead actor's entry leaves clocks whatever hints there are, or were given away", history.Faithful, Actors},
		{PruneOnce, "a dead actor's entry leaves clocks once all owners have it, whatever is on its way", history.Faithful, Actors},
		{PruneIdle, "a dead actor's entry leaves clocks though an owner still shows what it has written", history.Faithful, Actors},
		{PruneAge, "a record is taken however long it was on its way, so that it brings back what an entry that left had superseded", history.Faithful, Actors},
		{PruneForget, "owners forget at once what left their clocks, and refuse the contexts that name it", history.Convergent, Actors},
		{PruneStale, "a context that names what left is taken for one that has seen all that is here", history.Durable, Actors},
		{LeftLate, "a node that left hands over what it held, however long it was out of sight", history.Faithful, Leavers},
	}
}

// FindPlanted returns the planted bug of a name.
func FindPlanted(name string) (PlantedBug, error) {
	known := ""
	for _, p := range Planted() {
		if string(p.Bug) == name {
			return p, nil
		}
		known += " " + string(p.Bug)
	}
	return PlantedBug{}, fmt.Errorf("%q is no planted bug; there are%s", name, known)
}

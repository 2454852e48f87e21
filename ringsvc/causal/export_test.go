package causal

// MintUnguarded is Mint without its two refusals, so that tests can plant the faults that those refusals would hide.
var MintUnguarded = mint

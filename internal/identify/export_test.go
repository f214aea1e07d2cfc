package identify

// ParseOSRelease is for fuzzing.
var ParseOSRelease = parseOSRelease

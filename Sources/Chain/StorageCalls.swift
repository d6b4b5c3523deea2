internal import BlockIO
internal import ImageDriver

// Where the errors of lower modules become the chain's: once, here.

/// Makes calls on files; what they throw becomes an error of the chain.
func onStorage<Result: ~Copyable>(
  _ calls: () throws(StorageError) -> Result
) throws(ChainError) -> Result {
  do {
    return try calls()
  } catch {
    throw .storage(error)
  }
}

/// Makes calls on images; what they throw becomes an error of the chain.
func onImage<Result: ~Copyable>(
  _ calls: () throws(ImageError) -> Result
) throws(ChainError) -> Result {
  do {
    return try calls()
  } catch {
    throw .image(error)
  }
}
